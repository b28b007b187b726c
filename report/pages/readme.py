"""What the README's commands print and how long they take, from benchmark_readme.csv."""

from report.values import Results


def values(results: Results) -> dict[str, str]:
    """Return output and time of each command, as readme-<command>-printed and -time."""
    found = {}
    for row in results("benchmark_readme"):
        found[f"readme-{row['name']}-printed"] = " ".join(str(row["printed"]).split())
        found[f"readme-{row['name']}-time"] = (
            f"{row['seconds']:.0f} s" if row["seconds"] < 120 else f"{row['seconds'] / 60:.0f} min"
        )
    return found
