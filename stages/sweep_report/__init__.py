"""The report over a sweep: means over seeds, differences to a baseline seed by seed, what RL added, what it cost, where numbers come from.

Not a stage of a pipeline: it is made from the reports of finished runs whenever it is asked for.
"""
