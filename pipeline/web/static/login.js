// Exchanges the token, typed or taken from the address's fragment (which no server or log ever sees), for a cookie.

const form = document.getElementById("form");
const problem = document.getElementById("problem");

async function login(token) {
  const answer = await fetch("/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (answer.ok) location.replace("/");
  else problem.textContent = (await answer.json()).error;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  problem.textContent = "";
  login(document.getElementById("token").value.trim()).catch(() => {
    problem.textContent = "the program does not answer: is it still running?";
  });
});

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", "/");
  login(given).catch(() => {});
}
