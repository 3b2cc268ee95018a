"""What the commands of `cli.py` and `commandline/` do, one file a job.

Each may print; nothing below this floor does.
"""
