"""`python -m src.lr_finder --config C`: runs the LR sweep on this machine."""

from hpc.commands.submit import run_door

if __name__ == "__main__":
    run_door("lr_sweep")
