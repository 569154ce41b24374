// Choosing: a selector that shows at once what was chosen (form data-auto), and a list that is found in by typing.

document.documentElement.classList.add("js");

document.addEventListener("change", (event) => event.target.closest("form[data-auto]")?.requestSubmit());

document.addEventListener("input", (event) => {
  const list = event.target.dataset?.finds && document.querySelector(event.target.dataset.finds);
  if (!list) return;
  const words = event.target.value.toLowerCase().replaceAll("_", " ").split(/\s+/);
  for (const row of list.querySelectorAll("[data-find]")) {
    const name = row.dataset.find.toLowerCase().replaceAll("_", " ");
    row.hidden = !words.every((word) => name.includes(word)) && !row.querySelector(":checked");
  }
  for (const group of list.querySelectorAll("ul")) {
    group.previousElementSibling.hidden = !group.querySelector("[data-find]:not([hidden])");
  }
});
