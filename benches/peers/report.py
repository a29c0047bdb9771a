"""What was measured, as a table, a page and a plot."""

import datetime
import json
import os
import platform

UNITS = {"cpu": "µs", "user": "µs", "wall": "µs", "peak": "MiB", "per_second": "/s"}


def table_of(case, medians):
    if case.name == "rate":
        figures = medians["rate"]
        return (f"### {case.title}\n\n{figures['rate']:.4f} of the rate; at most {figures['excess']:.1f} starts over "
                f"burst + rate × time in any window.\n")
    ours = medians[case.clients[0]]
    lines = [f"### {case.title}", "",
             "| client | CPU a request, µs (user + system) | ± | requests/s | peak, MiB | system calls a request | "
             "CPU, ours ÷ its |",
             "|---|---|---|---|---|---|---|"]
    for client in case.clients:
        if client not in medians:
            lines.append(f"| {client} | absent | | | | | |")
            continue
        m = medians[client]
        calls = f"{m['calls']:.2f}" if "calls" in m else ""
        lines.append(f"| {client} | {m['cpu']:.2f} ({m['user']:.2f} + {m['system']:.2f}) | {m['spread'] / 2:.2f} | "
                     f"{m['per_second']:,.0f} | {m['peak']:.1f} | {calls} | {ours['cpu'] / m['cpu']:.2f} |")
    return "\n".join(lines) + "\n"


def reached(goal, results):
    """The figure of a goal: a ratio where there is a peer. None if the peer is absent."""
    ours = results[goal.case].get(goal.ours, {})
    if goal.figure == "peak_more":
        return ours["peak"] - results[goal.peer_case][goal.ours]["peak"]
    if goal.peer is None:
        return ours.get(goal.figure)
    peer = results[goal.peer_case or goal.case].get(goal.peer)
    return peer and ours[goal.figure] / peer[goal.figure]


def goals_table(goals, results):
    lines = ["| goal | against | bound | reached | |", "|---|---|---|---|---|"]
    for goal in goals:
        value = reached(goal, results)
        bound = f"{'≥' if goal.at_least else '≤'} {goal.bound:g}"
        if value is None:
            lines.append(f"| {goal.text} | {goal.peer or ''} | {bound} | absent | |")
            continue
        met = value >= goal.bound if goal.at_least else value <= goal.bound
        against = goal.peer if goal.peer_case is None else goal.peer_case
        lines.append(f"| {goal.text} | {against or ''} | {bound} | {value:.3g} | {'met' if met else '**missed**'} |")
    return "\n".join(lines) + "\n"


def write(folder, cases, results, goals, versions):
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    page = ["# fanout beside its peers", "",
            "Written by `benches/peers/run`. Medians over interleaved rounds; ± is half of what lies between the best and "
            "the worst of them. The machine is shared, so trust the ratios. nginx has one core; a client on the "
            "current-thread runtime, and one from outside, has the other; the default runtime has both. Our limits, "
            "timeouts and retries are at their defaults, that is on. All clients send the same four headers.", "",
            f"{os.cpu_count()} × {model}, Linux {platform.release()}.", "",
            ", ".join(f"{name}: {version}" for name, version in versions.items()) + ".", "",
            "The clients built here (`gather`, `as_completed`, `fetch`: fanout; reqwest; hyper-util) are one program with "
            "the same compiler settings. They count from before the client is made to the last result; of the others the "
            "whole process counts.", "",
            "## Goals", "", goals_table(goals, results), "## Figures", ""]
    page += [table_of(case, results[name]) for name, case in cases.items()]
    (folder / "RESULTS.md").write_text("\n".join(page))


def short_table(cases, results, versions):
    """What the documentation shows: CPU a request, ours and the peers' that are in the same program."""
    peers = ("reqwest-buffered", "hyper-util")
    lines = [f"Medians of {results_date()}: " + ", ".join(
        f"{name} {versions[name]}" for name in ("fanout", "reqwest", "hyper-util", "nginx") if name in versions) + ".", "",
        "| case | fanout | reqwest, `buffer_unordered` | hyper-util, legacy client |", "|---|---|---|---|"]
    for name, case in cases.items():
        if name == "rate" or not any(peer in results[name] for peer in peers):
            continue
        ours = results[name][case.clients[0]]["cpu"]
        row = [f"{case.title}", f"{ours:.1f} µs"]
        for peer in peers:
            theirs = results[name].get(peer)
            row.append(f"{theirs['cpu']:.1f} µs (we: {ours / theirs['cpu']:.2f} of it)" if theirs else "")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def results_date():
    return datetime.date.today().isoformat()


def plot(cases, results):
    """CPU a request, as bars: kept and dropped on the current-thread runtime."""
    shown = [("kept, current-thread runtime", "kept-ct"), ("dropped, current-thread runtime", "dropped-ct"),
             ("kept, default runtime", "kept-mt"), ("dropped, default runtime", "dropped-mt")]
    parts, y = [], 10
    for title, name in shown:
        medians = results[name]
        clients = [client for client in cases[name].clients if client in medians]
        clients = [client for client in clients if medians[client]["cpu"] < 60]
        y += 18
        parts.append(f'<text x="0" y="{y}" font-weight="bold">{title}</text>')
        y += 8
        for client in clients:
            cpu, ours = medians[client]["cpu"], client in ("gather", "as_completed")
            width = cpu * 11
            parts.append(f'<text x="130" y="{y + 12}" text-anchor="end">{client}</text>')
            parts.append(f'<rect x="136" y="{y}" width="{width:.0f}" height="15" fill="{"#c2410c" if ours else "#7c8ea3"}"/>')
            parts.append(f'<text x="{142 + width:.0f}" y="{y + 12}">{cpu:.1f}</text>')
            y += 19
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{y + 10}" viewBox="0 0 720 {y + 10}" '
            'font-family="sans-serif" font-size="12" fill="currentColor" role="img" '
            'aria-label="CPU time a request, in microseconds">')
    return head + "\n" + "\n".join(parts) + "\n</svg>\n"
