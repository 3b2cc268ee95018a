"""What is built of, done to and said of the parts together; each file is joined in by `app.py`."""
