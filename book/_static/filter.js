/* A table inside .filterable can be narrowed to the rows of a verdict, a figure or a chapter. Without
   scripts it is simply whole. Jupyter Book puts this script on every page. */

document.addEventListener("DOMContentLoaded", () => {
  /** What a row is found under; a chapter is known by the page that its cell links to. */
  const value = (cell) =>
    cell.querySelector("a")?.pathname.replace(/^.*\/|\.html$/g, "") ?? cell.textContent.trim();

  for (const table of document.querySelectorAll(".filterable table")) {
    const rows = [...table.tBodies[0].rows];
    const form = document.createElement("form");
    const left = document.createElement("output");
    const chosen = [];

    const show = () => {
      for (const row of rows) row.hidden = !chosen.every((fits) => fits(row));
      left.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };

    for (const { textContent: name, cellIndex: column } of table.tHead.rows[0].cells) {
      if (!["verdict", "figure", "chapter"].includes(name)) continue;
      const values = new Set(rows.map((row) => value(row.cells[column])).filter(Boolean));
      const sorted = [...values].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
      const select = document.createElement("select");
      select.append(new Option("all", ""), ...sorted.map((each) => new Option(each)));
      const label = document.createElement("label");
      label.append(`${name} `, select);
      form.append(label);
      chosen.push((row) => !select.value || value(row.cells[column]) === select.value);
    }
    form.className = "filter";
    form.append(left);
    form.addEventListener("change", show);
    table.closest(".filterable").prepend(form);
    show();
  }
});
