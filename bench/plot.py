"""Draws the figures of the benchmarks as SVG: `plot.py OUT.svg IN.json...` those of one or several runs of compare.sh --json."""
import json
import math
import sys
from xml.sax.saxutils import escape

COLOURS = {"kvorum": "#c2410c", "redis 3x(1+2)": "#64748b", "redis 3x1": "#94a3b8", "redis 3x1 fsync": "#1d4ed8", "redis": "#64748b", "redis fsync": "#1d4ed8"}
FONT = 'font-family="system-ui, sans-serif"'


def text(x, y, words, size=12, anchor="middle", colour="#334155", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}" {FONT}>'
            f"{escape(words)}</text>")


def line(x1, y1, x2, y2, colour="#cbd5e1", width=1, dash=""):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"'
            + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")


def write(path, width, height, parts):
    with open(path, "w") as out:
        out.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
                  f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def legend(names, y, left=60):
    parts = []
    for name in names:
        parts.append(f'<rect x="{left}" y="{y - 10}" width="12" height="12" fill="{COLOURS[name]}"/>')
        parts.append(text(left + 18, y, name, anchor="start"))
        left += 46 + 7 * len(name)
    return parts


def panel(results, key, title, top, width, height, shown):
    """Bars per load, as ratios; one above what fits is cut off and says its figure. `shown` writes the absolute figure."""
    left, bottom = 60, top + height
    scale_max = min(3.0, math.ceil(2 * max(1.5, *(row[key] for load in results.values() for row in load.values()))) / 2)
    at = lambda ratio: bottom - min(ratio, scale_max) / scale_max * (height - 34)
    parts = [text(left, top + 4, title, 14, "start", weight="bold")]
    step = 0.5
    for count in range(int(scale_max / step) + 1):
        parts += [line(left, at(count * step), width - 10, at(count * step)), text(left - 6, at(count * step) + 4, f"{count * step:.1f}", 11, "end")]
    group = (width - 10 - left) / len(results)
    for index, (load, rows) in enumerate(results.items()):
        bar = group * 0.8 / len(rows)
        for place, (name, row) in enumerate(rows.items()):
            x, y = left + group * (index + 0.1) + bar * place, at(row[key])
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar - 2:.1f}" height="{bottom - y:.1f}" fill="{COLOURS[name]}">'
                         f"<title>{escape(f'{load}, {name}: {row[key]:.2f} ({shown(row)})')}</title></rect>")
            is_told = name == "kvorum" or row[key] > scale_max
            if is_told:
                parts.append(text(x + bar / 2 - 1, y - 4, f"{row[key]:.2f}", 11, weight="bold" if name == "kvorum" else "normal"))
        parts.append(text(left + group * (index + 0.5), bottom + 16, load, 12))
        parts.append(text(left + group * (index + 0.5), bottom + 30, shown(rows["kvorum"]), 10, colour="#64748b"))
    return parts + [line(left, at(1), width - 10, at(1), "#0f172a", 1.5, "5 3")]


def comparison(results, path):
    width, height = 960, 640
    names = list(next(iter(results.values())))
    parts = legend(names, 24)
    parts += panel(results, "rps_ratio", "Throughput: more is better (dashed: redis 3x(1+2) = 1; below: Kvorum's)", 56, width, 230,
                   lambda row: f"{row['rps'] / 1000:.0f} k/s")
    parts += panel(results, "cpu_ratio", "CPU per request, all server processes: less is better", 350, width, 230,
                   lambda row: f"{row['cpu_us']:.2f} us")
    write(path, width, height, parts)


def round_up(value):
    """To a number whose quarters are easily read."""
    power = 10 ** math.floor(math.log10(value))
    return power * next(step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value)


def lines(path, panels, per_row):
    """Panels in rows: (title, what x is, {name: [(x label, y)]}), y from 0."""
    width, height = 330, 270
    parts = legend(list(dict.fromkeys(name for _, _, series in panels for name in series)), 24)
    for index, (title, unit, series) in enumerate(panels):
        row, column = divmod(index, per_row)
        left, top, right, bottom = column * width + 64, row * height + 80, (column + 1) * width - 10, (row + 1) * height - 10
        y_max = round_up(max(y for points in series.values() for _, y in points))
        at = lambda y: bottom - (bottom - top) * y / y_max
        parts.append(text(left - 40, top - 18, title, 13, "start", weight="bold"))
        for count in range(5):
            y = y_max * count / 4
            parts += [line(left, at(y), right, at(y)), text(left - 5, at(y) + 4, f"{y / 1000:g}k" if y_max > 9999 else f"{y:.0f}", 10, "end")]
        for name, points in series.items():
            spots = [(left + 12 + (right - left - 24) * number / max(1, len(points) - 1), at(y)) for number, (_, y) in enumerate(points)]
            corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
            parts.append(f'<polyline fill="none" stroke-width="2" stroke="{COLOURS[name]}" points="{corners}"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[name]}"/>' for x, y in spots]
        parts += [text(x, bottom + 16, label, 11) for (x, _), (label, _) in zip(spots, points)]
        parts.append(text((left + right) / 2, bottom + 32, unit, 11, colour="#64748b"))
    write(path, width * per_row, height * (len(panels) // per_row) + 30, parts)


def main():
    results = {}
    for path in sys.argv[2:]:
        with open(path) as figures:
            results.update(json.load(figures))
    comparison(results, sys.argv[1])


if __name__ == "__main__":
    main()
