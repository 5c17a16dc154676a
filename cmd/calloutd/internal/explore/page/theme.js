// Light and dark: what the system says, until somebody chooses.
const themes = ["system", "light", "dark"];

// beginTheme takes what was chosen before. The button chooses the next one.
export function beginTheme(button) {
  setTheme(button, localStorage.getItem("theme"));
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
    setTheme(button, next);
    localStorage.setItem("theme", next);
  });
}

function setTheme(button, name) {
  const theme = themes.includes(name) ? name : "system";
  document.documentElement.dataset.theme = theme;
  button.textContent = `Theme: ${theme}`;
}
