/* docutils marks the entries of a bibliography with a role that ARIA no longer has, so that screen
   readers find a list without items. This makes them its items. */

document.addEventListener("DOMContentLoaded", () => {
  for (const entry of document.querySelectorAll(".citation-list > [role=doc-biblioentry]")) {
    entry.setAttribute("role", "listitem");
  }
});
