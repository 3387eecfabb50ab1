"""The process that isolates itself, runs one untrusted program, and sends back the values.

`start.py` is run by path as a plain script and loads the others by path. They import nothing of ours but each other,
and little of the standard library, for every program pays for it.
"""
