"""The drawing pad: a canvas, and what its strokes become when the race begins.

Strokes are as wide as those of the scenes that the embedded model was trained on, in its colours.
"""

from __future__ import annotations

from ..datasets import PALETTE

SIDE = 256  # pixels: 8 for each of the model's
WIDTH = 36  # pixels of a stroke


def _options(chosen: str) -> str:
    """Write the colours as options of a list."""
    return "".join(
        f"<option value='rgb{rgb}'{' selected' if name == chosen else ''}>{name}</option>"
        for name, rgb in PALETTE.items()
    )


PAD = (
    f"<canvas width='{SIDE}' height='{SIDE}' role='img' aria-label='Drawing pad'></canvas>"
    f"<p><label>Pen <select name='pen'>{_options('red')}</select></label> "
    f"<label>Paper <select name='paper'>{_options('white')}</select></label> "
    "<button type='button'>Clear</button></p>"
)

PAD_SCRIPT = f"""
const canvas = element.querySelector("canvas"), paint = canvas.getContext("2d");
const [pen, paper] = ["pen", "paper"].map(name => element.querySelector(`[name=${{name}}]`));
let strokes = [];
const draw = () => {{
  paint.fillStyle = paper.value;
  paint.fillRect(0, 0, {SIDE}, {SIDE});
  Object.assign(paint, {{strokeStyle: pen.value, lineWidth: {WIDTH}, lineCap: "round",
    lineJoin: "round"}});
  for (const stroke of strokes) {{
    paint.beginPath();
    paint.moveTo(...stroke[0]);
    for (const point of stroke) paint.lineTo(...point);
    paint.stroke();
  }}
  canvas.dataset.ink = strokes.length ? "yes" : "";
}};
const place = event => {{
  const box = canvas.getBoundingClientRect(), scale = {SIDE} / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}};
canvas.addEventListener("pointerdown", event => {{
  canvas.setPointerCapture(event.pointerId);
  strokes.push([place(event)]);
  draw();
}});
canvas.addEventListener("pointermove", event => {{
  if (event.buttons & 1 && strokes.length) {{ strokes.at(-1).push(place(event)); draw(); }}
}});
element.querySelector("button").addEventListener("click", () => {{ strokes = []; draw(); }});
for (const list of [pen, paper]) list.addEventListener("change", draw);
draw();
"""

# Before a race, in the browser: the drawing replaces an upload while the pad is seen and used.
TAKE_DRAWING = """
(upload, drawing, labels) => {
  const canvas = document.querySelector("#dc-pad canvas");
  const drawn = canvas && canvas.offsetParent && canvas.dataset.ink;
  return [upload, drawn ? canvas.toDataURL("image/png") : "", labels];
}
"""
