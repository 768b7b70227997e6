"""Tables that commands write for the documentation."""

import os


def load():
    """What else the machine does now, as a sentence."""
    return f"Load of the machine when it began, by other work: {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors."


def publish(directory, name, table):
    """Prints a table, and writes it to a file if there is a directory for it."""
    if directory:
        with open(os.path.join(directory, name), "w") as file:
            file.write(table)
    print(table)
