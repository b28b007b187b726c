// What every page shares: its data, elements, tabs, and the choice between light and dark.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// Texts go in as text, never as markup
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Numbers of common/page.py's `floats`; all arrays of numbers are of one type, which browsers compute with faster
function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return Float64Array.from(new Float32Array(bytes.buffer));
}

// Buttons with role "tab", each with aria-controls; arrows, Home and End move between them. `opened` is told the panel's id.
function makeTabs(opened = () => {}) {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  function choose(tab) {
    for (const other of tabs) {
      other.setAttribute("aria-selected", other === tab);
      other.tabIndex = other === tab ? 0 : -1;
      byId(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
    opened(tab.getAttribute("aria-controls"));
  }
  for (const [place, tab] of tabs.entries()) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const target = { ArrowRight: place + 1, ArrowLeft: place - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
      if (target === undefined) return;
      event.preventDefault();
      const next = tabs[target % tabs.length];
      next.focus();
      choose(next);
    });
  }
  choose(tabs[0]);
}

// The button "theme" changes between light and dark; at first the system's choice holds.
const dark = matchMedia("(prefers-color-scheme: dark)");
byId("theme").addEventListener("click", () => {
  const root = document.documentElement, isDark = (root.style.colorScheme || (dark.matches ? "dark" : "light")) === "dark";
  root.style.colorScheme = isDark ? "light" : "dark";
  document.dispatchEvent(new Event("themechange"));
});
