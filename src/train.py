"""`python -m src.train --config C`: runs one full training on this machine."""

from hpc.commands.submit import run_local_command

if __name__ == "__main__":
    run_local_command("train")
