"""``python -m onesearch``: the command line."""

from onesearch.cli import app

if __name__ == "__main__":
    app(prog_name="onesearch")
