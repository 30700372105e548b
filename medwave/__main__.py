"""``python -m medwave``: the command line, also under ``torchrun -m medwave``."""

from medwave.cli.app import main

if __name__ == "__main__":
    main()
