"""`python -m vlpipe` is the same as the `vlpipe` command."""

from vlpipe.pipelines.cli import main

if __name__ == "__main__":
    main()
