"""The command line. ``main`` holds the table of commands; each module parses and runs one of them."""
