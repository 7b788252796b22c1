"""`python -m src.lr_finder --config C`: runs the LR sweep on this machine."""

from hpc.commands.submit import run_local_command

if __name__ == "__main__":
    run_local_command("lr_sweep")
