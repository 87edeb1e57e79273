"""``python -m mobilenets``."""

from mobilenets.cli import main

main()
