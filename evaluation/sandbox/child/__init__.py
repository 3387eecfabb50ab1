"""The process that starts others, which isolate themselves, run one untrusted program each, and send back the values.

`start.py` is run by path as a plain script and loads the others by path. They import nothing of ours but each other.
"""
