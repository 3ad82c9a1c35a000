"""``python -m lateral``: the ``lateral`` command."""

from lateral.cli import main

if __name__ == "__main__":
    main()
