// Keeps a page's part #live up to date: it is fetched again when the service says that it changed.
"use strict";
(() => {
  const SLOW_S = 5;
  let revision = null, fetched = Date.now(), source = null, busy = false;

  async function refresh() {
    if (busy) return;
    busy = true;
    fetched = Date.now();
    try {
      const answer = await fetch(location.href, {headers: {Accept: "text/html"}});
      if (answer.redirected && new URL(answer.url).pathname === "/console/login") return location.assign(answer.url);
      if (!answer.ok) return;
      const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      const shown = document.getElementById("live");
      if (!found || shown.contains(document.activeElement) && document.activeElement.matches("input, select")) return;
      const focused = document.activeElement && document.activeElement.getAttribute("href");
      shown.replaceWith(document.adoptNode(found));
      if (focused) found.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({preventScroll: true});
    } catch { /* the next message tries again */ } finally { busy = false; }
  }

  function open() {
    if (source) source.close();
    source = new EventSource("/console/stream");
    source.onmessage = event => {
      const frame = JSON.parse(event.data), moving = document.getElementById("live").dataset.moving;
      const changed = revision !== null && frame.revision !== revision;
      revision = frame.revision;
      if (changed || Date.now() - fetched > 1e3 * (moving ? 1 : SLOW_S)) refresh();
    };
    source.addEventListener("over", () => { source.close(); refresh(); });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(open, 3e3); };
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) { open(); refresh(); } else if (source) source.close();
  });
  open();
})();
