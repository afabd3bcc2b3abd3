for (const root of document.querySelectorAll(".map-view")) {
  const find = (name) => root.querySelector(name);
  const data = JSON.parse(find("script").textContent);
  const canvas = find("canvas"), tip = find(".tip"), select = find("select"), pictures = find("input");
  const context = canvas.getContext("2d"), sheet = new Image();
  const view = { zoom: 1, x: 0.5, y: 0.5 };  // the point of the map in the middle of the canvas
  // Hues a golden angle apart, so that classes next to each other in the list differ most.
  const colour = (k) => `hsl(${(k * 137.508) % 360} 65% ${[38, 50, 62][k % 3]}%)`;

  const place = ([x, y]) => [
    ((x - view.x) * view.zoom * 0.94 + 0.5) * canvas.clientWidth,
    ((y - view.y) * view.zoom * 0.94 + 0.5) * canvas.clientHeight,
  ];
  // Smaller where many points share little room.
  const room = () => canvas.clientWidth * canvas.clientHeight / data.points.length;
  const side = () => Math.min(17, 1.1 * Math.sqrt(room())) * Math.sqrt(view.zoom);

  function draw() {
    const ratio = window.devicePixelRatio || 1, chosen = Number(select.value), size = side();
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    context.scale(ratio, ratio);
    data.points.forEach((point, index) => {
      const [x, y] = place(point), faded = chosen >= 0 && point[2] !== chosen;
      context.globalAlpha = faded ? 0.12 : 1;
      context.fillStyle = colour(point[2]);
      context.beginPath();
      if (!pictures.checked) {
        context.arc(x, y, size / 3, 0, 2 * Math.PI);
        context.fill();
        return;
      }
      context.roundRect(x - size / 2 - 1.5, y - size / 2 - 1.5, size + 3, size + 3, 3);
      context.fill();
      const left = (index % data.columns) * data.tile, top = Math.floor(index / data.columns) * data.tile;
      context.drawImage(sheet, left, top, data.tile, data.tile, x - size / 2, y - size / 2, size, size);
    });
  }

  function nearest(x, y) {
    let best = -1, least = Math.max(side(), 12) ** 2;
    data.points.forEach((point, index) => {
      const [px, py] = place(point), distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    return best;
  }

  function show(index, x, y) {
    tip.style.display = index < 0 ? "none" : "flex";
    if (index < 0) return;
    const [, , label, text, id] = data.points[index], scale = 80 / data.tile;
    const left = (index % data.columns) * 80, top = Math.floor(index / data.columns) * 80;
    Object.assign(tip.firstChild.style, {
      background: `url(${data.sheet}) -${left}px -${top}px / ${sheet.naturalWidth * scale}px auto`,
    });
    const [name, words, file] = ["b", "div", "small"].map((tag) => document.createElement(tag));
    [name.textContent, words.textContent, file.textContent] = [data.classes[label], text, id];
    tip.style.borderLeft = `6px solid ${colour(label)}`;
    tip.lastChild.replaceChildren(name, words, file);
    tip.style.left = `${Math.min(x + 16, canvas.clientWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${y > canvas.clientHeight / 2 ? y - tip.offsetHeight - 16 : y + 16}px`;
  }

  function zoom(factor) {
    view.zoom = Math.min(16, Math.max(1, view.zoom * factor));
    draw();
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = event;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => (held = null));
  canvas.addEventListener("pointerleave", () => show(-1));
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      view.x -= (event.clientX - held.clientX) / (canvas.clientWidth * view.zoom * 0.94);
      view.y -= (event.clientY - held.clientY) / (canvas.clientHeight * view.zoom * 0.94);
      held = event;
      draw();
    }
    show(held ? -1 : nearest(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
  });
  find(".zoom-in").addEventListener("click", () => zoom(1.5));
  find(".zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  for (const control of [select, pictures]) control.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  sheet.addEventListener("load", draw);
  sheet.src = data.sheet;
}
