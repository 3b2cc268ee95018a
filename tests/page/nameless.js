// What can be used or is drawn, and has no name for those who hear the page.
() =>
  [...document.querySelectorAll("button, select, input, [role=img], [role=region]")]
    .filter((one) => one.checkVisibility())
    .filter(
      (one) =>
        !(
          one.textContent.trim() ||
          one.getAttribute("aria-label") ||
          one.getAttribute("aria-labelledby") ||
          one.labels?.length
        ),
    )
    .map((one) => one.outerHTML);
