/* Copy buttons of the lineage. Without scripts the text can still be selected with one click. */
for (const button of document.querySelectorAll(".lineage button")) {
  const code = button.previousElementSibling;
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const name = button.firstChild;
    try {
      await navigator.clipboard.writeText(code.textContent);
      name.data = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      name.data = "Selected";
    }
    setTimeout(() => { name.data = "Copy"; }, 1500);
  });
}
