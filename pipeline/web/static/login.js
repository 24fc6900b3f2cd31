// Exchange the token for a cookie. It is typed, or taken from the URL's fragment, which browsers never send.

const form = document.getElementById("form");
const problem = document.getElementById("problem");

async function login(token) {
  const answer = await fetch("login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (answer.ok) location.replace("./");
  else problem.textContent = (await answer.json()).error;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  problem.textContent = "";
  login(document.getElementById("token").value.trim()).catch(() => {
    problem.textContent = "no answer: check that the program is still running";
  });
});

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  history.replaceState(null, "", "./");
  login(given).catch(() => {});
}
