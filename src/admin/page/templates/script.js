"use strict";
// Shows a page anew while something goes on, without losing the reader's place. Without it
// the page is the same, and is reloaded by its own head.
(() => {
  const again = () => {
    const main = document.querySelector("main[data-refresh]");
    if (main) setTimeout(refresh, Number(main.dataset.refresh) * 1000);
  };
  const refresh = async () => {
    const main = document.querySelector("main");
    const busy = main.contains(document.activeElement) && document.activeElement !== main;
    if (document.hidden || busy) return again();
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (answer.redirected || !fresh) return location.reload();
      main.replaceWith(fresh);
    } catch {
      // The service restarts, perhaps: it is asked again.
    }
    again();
  };
  again();
})();
