"""`python -m src.grid_search --config C [--refined]`: runs every cell of the grid on this machine, in order."""

from hpc.commands.submit import run_local_command

if __name__ == "__main__":
    run_local_command("grid")
