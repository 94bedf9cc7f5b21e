"use strict";
// Names beside points and at the ends of curves, where they cover neither marks nor each other.
const labels = (() => {
  const DISTANCES = [7, 12, 18, 26, 36, 48, 64, 84];
  const ANGLES = [0, 180, 90, 270, 45, 135, 315, 225, 22, 158, 338, 202, 68, 112, 292, 248];
  // More names than this: only those on the Pareto front.
  const MANY = 30;
  // Half of the side that a mark takes; the height of a line; beyond this a line leads to the point.
  const MARK = 6, LINE = 14, NEAR = 14;
  // Of a letter at 12 pixels, on average.
  const LETTER = 6.6;

  const overlaps = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const around = ({ x, y }, width, height) => ({ left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 });
  const covered = (spot, taken) => {
    const across = (other) => Math.min(spot.right, other.right) - Math.max(spot.left, other.left);
    const along = (other) => Math.min(spot.bottom, other.bottom) - Math.max(spot.top, other.top);
    return taken.filter((other) => overlaps(spot, other)).reduce((sum, other) => sum + across(other) * along(other), 0);
  };
  const inside = (spot, box) => spot.left >= box.left && spot.right <= box.right + 12 && spot.top >= box.top - 8 && spot.bottom <= box.bottom;

  function* spots(point, width) {
    for (const distance of DISTANCES) {
      for (const angle of ANGLES) {
        const [across, along] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
        const centre = { x: point.x + across * (distance + width / 2), y: point.y - along * (distance + LINE / 2) };
        yield { ...around(centre, width, LINE), ...centre, far: distance > NEAR };
      }
    }
  }

  // The steps of the front, which a name avoids where it can stay near its point.
  const steps = (corners) => corners.slice(1).flatMap((end, n) => [
    { left: corners[n].x, right: end.x, top: corners[n].y - 1, bottom: corners[n].y + 1 },
    { left: end.x - 1, right: end.x + 1, top: end.y, bottom: corners[n].y },
  ]);

  // Those on the front choose first, and each of them gets the place where it covers least.
  function besidePoints(add, points, corners, box) {
    const seen = new Set();
    const named = points.filter(({ name }) => name && !seen.has(name) && seen.add(name));
    const chosen = named.length > MANY ? named.filter(({ front }) => front) : named;
    chosen.sort((a, b) => b.front - a.front);
    const line = steps(corners);
    const taken = points.map((point) => around(point, 2 * MARK, 2 * MARK));
    for (const point of chosen) {
      const text = add("text", { class: point.front ? "name front-name" : "name", "text-anchor": "middle" }, point.name);
      const all = [...spots(point, text.getComputedTextLength() + 2)].filter((spot) => inside(spot, box));
      const free = all.filter((spot) => covered(spot, taken) === 0);
      let best = free.find((spot) => !spot.far && covered(spot, line) === 0) ?? free[0];
      if (!best && point.front) best = all.sort((a, b) => covered(a, taken) - covered(b, taken))[0];
      if (!best) {
        text.remove();
        continue;
      }
      text.setAttribute("x", best.x);
      text.setAttribute("y", best.y + 4);
      if (best.far) add("line", { class: "leader", x1: point.x, y1: point.y, x2: best.x, y2: best.y + (best.y < point.y ? LINE / 2 : -LINE / 2) });
      taken.push(best);
    }
  }

  // Pixels at the right for names, at most two fifths of the picture.
  const room = (names, width) => (names.length ? Math.min(24 + LETTER * Math.max(...names.map((name) => name.length)), 0.4 * width) : 0);

  // Pushed apart from above, then back from below.
  function apart(ends, box) {
    let free = box.top;
    for (const end of ends) free = (end.at = Math.max(end.y, free)) + LINE;
    free = box.bottom;
    for (const end of ends.toReversed()) free = (end.at = Math.min(end.at, free)) - LINE;
  }

  function atEnds(add, curves, box, room) {
    const byName = new Map();
    for (const curve of curves) byName.set(curve.name, [...(byName.get(curve.name) ?? []), curve]);
    const ends = [...byName.values()].map((same) => ({
      ...same[0],
      x: Math.max(...same.map(({ x }) => x)),
      y: same.reduce((sum, { y }) => sum + y, 0) / same.length,
    }));
    ends.sort((a, b) => a.y - b.y);
    apart(ends, box);
    const letters = Math.floor((room - 24) / LETTER);
    for (const { name, x, y, at, paint } of ends) {
      const short = name.length > letters ? `${name.slice(0, letters - 1)}…` : name;
      add("line", { class: "leader", x1: x, y1: y, x2: box.right + 18, y2: at, stroke: paint });
      add("text", { class: "name end-name", x: box.right + 22, y: at + 4, style: `fill: ${paint}` }, short);
    }
  }

  return { besidePoints, room, atEnds };
})();
