"""``medwave`` and ``python -m medwave``: the command line, also under ``torchrun -m medwave``."""


def main() -> None:
    """Run the command; an interrupt while it is imported ends it quietly."""
    try:
        from medwave.cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
