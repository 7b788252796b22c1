"""All that runs inside the process of a user's program: the run as the program sees it, its states on disk, its
generators, its parameters. Standard library, plus torch where it is used; of Relay, only relay.errors and relay.files.
"""
