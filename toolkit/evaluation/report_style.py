"""The style sheet of the report page: light and dark, from a phone's width to a wide screen."""

from __future__ import annotations

__all__ = ["STYLE", "system_colour"]

_NAMED = {"blind": "var(--muted)", "human": "var(--human)", "base": "var(--base)", "sft": "var(--sft)"}
_CYCLE = ("var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)")


def system_colour(name: str, names: list[str]) -> str:
    """The CSS colour of a system: fixed for the usual rows, by position for the others."""
    if name in _NAMED:
        return _NAMED[name]
    others = [other for other in names if other not in _NAMED]
    return _CYCLE[others.index(name) % len(_CYCLE)] if name in others else "var(--accent)"


STYLE = """
:root { color-scheme: light dark;
  --page:#f6f7f9; --card:#fff; --ink:#1b2330; --soft:#5b6678; --muted:#98a2b3; --line:#e3e7ed; --accent:#2f6fdb;
  --human:#8b5fbf; --base:#64748b; --sft:#2f6fdb; --c1:#d9730d; --c2:#0f9d77; --c3:#c2417c; --c4:#7c6a0a;
  --c5:#0891b2; --up:#0b7d53; --down:#c22f3d; --upfill:#0f9d7733; --downfill:#d6404f33; --flatfill:#98a2b344;
  --chip:#eef1f5; }
@media (prefers-color-scheme: dark) { :root {
  --page:#10141b; --card:#181e28; --ink:#e7ecf3; --soft:#9aa7ba; --muted:#6b7890; --line:#2a3342; --accent:#6aa1ff;
  --human:#b794f4; --base:#94a3b8; --sft:#6aa1ff; --c1:#f59e4b; --c2:#34c79a; --c3:#ec7fb0; --c4:#d9c04a;
  --c5:#41c4de; --up:#4fd3a4; --down:#ff7f8a; --chip:#222b38; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif; }
main { max-width:1160px; margin:0 auto; padding:36px 24px 72px; }
header h1 { margin:0 0 6px; font-size:30px; line-height:1.2; letter-spacing:-.02em; overflow-wrap:anywhere; }
header p { margin:0; color:var(--soft); overflow-wrap:anywhere; }
nav { margin:18px 0 0; display:flex; flex-wrap:wrap; gap:6px 18px; }
nav a { color:var(--accent); text-decoration:none; } nav a:hover { text-decoration:underline; }
section { margin-top:40px; } h2 { font-size:20px; margin:0 0 4px; letter-spacing:-.01em; }
h3 { font-size:15px; margin:0 0 10px; } .lead { color:var(--soft); margin:0 0 16px; max-width:76ch; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:16px 18px; min-width:0; }
.grid { display:grid; gap:14px; grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr)); }
.card + .grid { margin-top:14px; }
.grid.wide { grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr)); }
.tiles { display:grid; gap:14px; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); margin-top:24px; }
.tile .what { color:var(--soft); font-size:13px; } .tile .big { font-size:26px; font-weight:650;
  letter-spacing:-.02em; line-height:1.25; } .tile .why { font-size:13px; color:var(--soft); }
.scroll { overflow-x:auto; padding:4px 8px; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th,td { padding:9px 10px; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap; }
th { font-size:12.5px; font-weight:600; color:var(--soft); } tr:last-child td { border-bottom:0; }
th:first-child,td:first-child { text-align:left; position:sticky; left:0; background:var(--card); }
td small { display:block; color:var(--soft); font-size:11.5px; line-height:1.3;
  font-weight:400; } td.best { font-weight:700; }
tr.baseline td { color:var(--soft); } table.runs td,table.runs th { text-align:left; }
.sys::before,.key i { content:""; display:inline-block; width:9px; height:9px; border-radius:50%;
  margin-right:7px; background:var(--dot); }
.strips { display:grid; grid-template-columns:auto minmax(60px,1fr) auto; gap:10px 14px; align-items:center;
  font-variant-numeric:tabular-nums; } .strip { display:contents; }
.strip .name { overflow-wrap:anywhere; } .strip .value { text-align:right; font-weight:600; }
.strip small { color:var(--soft); font-weight:400; white-space:nowrap; }
.track,.bar { position:relative; height:16px; border-radius:8px; background:var(--chip); overflow:hidden; }
.track i,.bar i { position:absolute; top:0; bottom:0; } .zero { border-left:1.5px dashed var(--muted); }
.range { background:var(--flatfill); border-radius:4px; top:3px!important; bottom:3px!important; }
.dot { width:8px; margin-left:-4px; border-radius:50%; top:4px!important; bottom:4px!important;
  background:var(--muted); }
.up .range { background:var(--upfill); } .up .dot { background:var(--up); } .value.up { color:var(--up); }
.down .range { background:var(--downfill); } .down .dot { background:var(--down); }
.value.down { color:var(--down); } .fill { left:0; border-radius:8px; } .mark { border-left:2px solid var(--ink); }
figure { margin:0; } .chart { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:12px 12px 6px; min-width:0; }
.chart figcaption { display:flex; flex-wrap:wrap; justify-content:space-between; gap:2px 12px; font-size:13px;
  margin-bottom:4px; } .chart strong { overflow-wrap:anywhere; min-width:0; }
.chart svg { width:100%; height:auto; display:block; } .key { margin-left:10px; color:var(--soft); }
.key b { color:var(--ink); } .grid line,svg .grid { stroke:var(--line); stroke-width:1; }
.tick { fill:var(--soft); font-size:10.5px; }
details { margin-top:12px; } summary { cursor:pointer; color:var(--accent); }
pre { background:var(--chip); border-radius:8px; padding:12px; overflow:auto; max-height:420px; font-size:12.5px;
  line-height:1.45; white-space:pre-wrap; overflow-wrap:anywhere; }
.samples { display:grid; gap:16px; grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr)); }
.sample { display:flex; flex-direction:column; gap:12px; }
.sample img { max-width:100%; max-height:240px; border-radius:8px; align-self:center; }
.sample img.small { width:216px; image-rendering:pixelated; }
.said { margin:0; padding:0; list-style:none; } .said li { padding:8px 0; border-top:1px solid var(--line); }
.said p { margin:2px 0 4px; overflow-wrap:anywhere; } .who { font-weight:600; font-size:13px; }
.chips { display:flex; flex-wrap:wrap; gap:5px; } .chip { background:var(--chip); border-radius:6px;
  padding:1px 7px; font-size:12px; color:var(--soft); font-variant-numeric:tabular-nums; }
.chip b { color:var(--ink); font-weight:600; } .said .empty { color:var(--muted); font-style:italic; }
footer { margin-top:48px; color:var(--soft); font-size:13px; border-top:1px solid var(--line); padding-top:16px; }
@media (max-width:560px) { main { padding:22px 14px 48px; } header h1 { font-size:24px; }
  .card { padding:14px; } .strips { display:block; }
  .strip { display:grid; grid-template-columns:minmax(0,1fr) auto; gap:4px 10px; margin:9px 0; }
  .track,.bar { grid-column:1/-1; order:3; } .key { margin:0 10px 0 0; } th,td { padding:8px 7px; } }
@media print { body { background:#fff; } .card,.chart { break-inside:avoid; } }
"""
