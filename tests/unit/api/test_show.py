"""What the terminal shows of a report."""

import io

from rich.console import Console

from api.cli.show import report_table


def share(value, n=100):
    return {"value": value, "n": n, "low": max(0.0, value - 0.1), "high": min(1.0, value + 0.1)}


def test_a_report_as_a_table():
    report = {
        "target": {
            "accuracy": {"before": share(0.9), "after": share(0.012, n=80)},
            "synthetic_accuracy": None,
            "siblings": {"before": share(1.0), "after": share(0.75)},
        },
        "evaluations": [
            {"name": "farm", "retain": {"before": share(0.8), "after": share(0.79)}},
            {"name": "x", "retain": None},
        ],
        "thresholds": [
            {"measure": "max_forget_accuracy", "limit": 0.05, "value": 0.012, "passed": True},
            {"measure": "max_retain_drop", "limit": 0.002, "value": 0.01, "passed": False},
        ],
    }
    terminal = io.StringIO()

    Console(width=100, file=terminal).print(report_table(report))
    lines = [" ".join(line.split()) for line in terminal.getvalue().splitlines()]

    assert lines == [
        "measured n before after",
        "target, real images 80 90.0 % 1.2 % [0.0, 11.2]",
        "rest of the target's class 100 100.0 % 75.0 % [65.0, 85.0]",
        "farm: what stays 100 80.0 % 79.0 % [69.0, 89.0]",
        "max_forget_accuracy 0.012 (limit 0.05) met",
        "max_retain_drop 0.010 (limit 0.002) missed",
    ]
