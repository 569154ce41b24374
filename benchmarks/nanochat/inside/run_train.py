"""Entry of the TRAIN step: hands over to the candidate's own `train.main()`."""


def main() -> None:
    import train

    train.main()
