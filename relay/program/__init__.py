"""All that runs inside the process that computes: its states on disk and its generators. Standard library, plus torch
where it is used; of Relay, only relay.errors and relay.files.
"""
