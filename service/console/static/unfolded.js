// Tells the form whether its folded part is open, so that the page of the answer keeps it so.
"use strict";
document.getElementById("more").addEventListener("toggle", event => {
  document.getElementById("unfolded").value = event.target.open ? "yes" : "no";
});
