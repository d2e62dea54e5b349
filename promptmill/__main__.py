"""`python -m promptmill`: the command line."""

from promptmill.command_line import main

if __name__ == "__main__":
    main()
