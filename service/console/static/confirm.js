// Shows the share beside its slider; a command is sent once.
"use strict";
(() => {
  const share = document.getElementById("share"), form = document.querySelector("form.confirm");
  if (share) share.addEventListener("input", () => { document.getElementById("shown").value = `${share.value}%`; });
  form.addEventListener("submit", event => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => { delete form.dataset.sent; });
})();
