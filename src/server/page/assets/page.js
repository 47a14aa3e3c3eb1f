// Keeps a page true: fetches it again when something has changed, and puts in what is different. Everything works without it.
"use strict";

(() => {
  const SOON_MS = 5000;
  const main = () => document.getElementById("main");
  const news = document.getElementById("news");
  const stale = document.getElementById("stale");
  let source = null;
  let timer = null;
  let busy = false;
  let again = false;

  // Relative times go on by themselves; what they say is no change of the page.
  const bare = (html) => html.replace(/(<time[^>]*>)[^<]*/g, "$1");
  const shown = new Map();

  function parts(root) {
    return [...root.querySelectorAll("[data-part]")];
  }

  function remember(root) {
    shown.clear();
    parts(root).forEach((part) => shown.set(part.id, bare(part.outerHTML)));
  }

  function distance(at) {
    const seconds = Math.trunc((Date.now() - at) / 1000);
    const far = Math.abs(seconds);
    const words = far < 60 ? `${far} s` : far < 3600 ? `${Math.trunc(far / 60)} min`
      : far < 86400 ? `${Math.trunc(far / 3600)} h` : `${Math.trunc(far / 86400)} d`;
    return seconds < 0 ? `in ${words}` : `${words} ago`;
  }

  function tick() {
    document.querySelectorAll("time").forEach((time) => {
      const told = distance(Date.parse(time.dateTime));
      if (time.textContent !== told) time.textContent = told;
    });
  }

  // What somebody has written, opened, marked or scrolled to stays.
  function kept(root) {
    const active = document.activeElement;
    const has = active && root.contains(active) && active.id;
    return {
      fields: [...root.querySelectorAll("textarea[id], input[id]:not([type=hidden])")].map((f) => [f.id, f.value]),
      open: [...root.querySelectorAll("details[id]")].map((d) => [d.id, d.open]),
      scrolled: [...root.querySelectorAll("[data-scroll][id]")].map((s) => [s.id, s.scrollLeft, s.scrollTop]),
      focus: has ? [active.id, active.selectionStart, active.selectionEnd] : null,
    };
  }

  function restore(state) {
    const find = (id) => document.getElementById(id);
    state.fields.forEach(([id, value]) => { const f = find(id); if (f && f.value !== value) f.value = value; });
    state.open.forEach(([id, open]) => { const d = find(id); if (d) d.open = open; });
    state.scrolled.forEach(([id, left, top]) => { const s = find(id); if (s) { s.scrollLeft = left; s.scrollTop = top; } });
    if (!state.focus) return;
    const [id, start, end] = state.focus;
    const f = find(id);
    if (!f || document.activeElement === f) return;
    f.focus({ preventScroll: true });
    if (typeof start === "number" && f.setSelectionRange) f.setSelectionRange(start, end);
  }

  // A picture that does not fit is first seen where the run stands.
  function look() {
    document.querySelectorAll(".picture-frame").forEach((frame) => {
      const at = frame.querySelector(".here") || frame.querySelector(".end");
      if (!at || frame.dataset.looked) return;
      frame.dataset.looked = "yes";
      const [place, own] = [at.getBoundingClientRect(), frame.getBoundingClientRect()];
      frame.scrollLeft += place.left + place.width / 2 - own.left - own.width / 2;
      frame.scrollTop += place.top + place.height / 2 - own.top - own.height / 2;
    });
  }

  function put(fresh) {
    const old = main();
    const next = parts(fresh);
    const same = next.length > 0 && next.map((p) => p.id).join() === parts(old).map((p) => p.id).join();
    const changed = same ? next.filter((part) => shown.get(part.id) !== bare(part.outerHTML)) : [fresh];
    if (changed.length === 0) return;
    const selection = document.getSelection();
    // Whoever is marking text to copy it gets the change a moment later.
    if (selection && !selection.isCollapsed && old.contains(selection.anchorNode)) { later(); return; }
    const state = kept(old);
    if (same) {
      changed.forEach((part) => {
        shown.set(part.id, bare(part.outerHTML));
        document.getElementById(part.id).replaceWith(part);
      });
    } else {
      remember(fresh);
      old.replaceWith(fresh);
    }
    restore(state);
  }

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { cache: "no-store", headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("main");
      if (!answer.ok || !fresh) throw new Error(`status ${answer.status}`);
      const [was, is] = [main().dataset.says, fresh.dataset.says];
      put(fresh);
      const count = [document.getElementById("waiting"), page.getElementById("waiting")];
      if (count[0] && count[1] && count[0].outerHTML !== count[1].outerHTML) count[0].replaceWith(count[1]);
      main().dataset.says = is;
      document.title = page.title;
      stale.hidden = true;
      if (was !== is) news.textContent = is;
      follow(fresh.dataset);
    } catch {
      stale.hidden = false;
      later();
    }
    busy = false;
    if (again) { again = false; refresh(); }
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(refresh, SOON_MS);
  }

  // A hidden page holds no connection: browsers have few of them for each server.
  function follow({ stream, every }) {
    clearTimeout(timer);
    if (document.hidden) { hush(); return; }
    if (Number(every) > 0) timer = setTimeout(refresh, Number(every));
    if (!stream) { hush(); return; }
    if (source) return;
    source = new EventSource(stream);
    source.addEventListener("changed", refresh);
    source.addEventListener("over", () => { hush(); refresh(); });
    // The browser tries the stream again by itself, unless it was refused; whether the server is there, the page says.
    source.addEventListener("error", () => { if (source && source.readyState === EventSource.CLOSED) hush(); later(); });
  }

  function hush() {
    if (source) source.close();
    source = null;
  }

  const { stream, every } = main().dataset;
  remember(main());
  look();
  setInterval(tick, 1000);
  if (stream || Number(every) > 0) {
    follow(main().dataset);
    document.addEventListener("visibilitychange", () => { if (document.hidden) { clearTimeout(timer); hush(); } else refresh(); });
  }
})();
