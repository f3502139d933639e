"""A callable for hostile files to name: whoever builds something from their text calls it."""

sung: list[tuple] = []


def sing(*arguments, **options):
    sung.append((arguments, options))
    return "sung"
