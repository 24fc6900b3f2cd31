// Requests that change something in the program.

const PATIENCE_MS = 60_000; // a cut network ends no request

// POST an object as JSON, and return the answer. Throws an Error with the program's reason as its message, and the status.
export async function post(path, values) {
  const headers = { "Content-Type": "application/json" };
  const signal = AbortSignal.timeout?.(PATIENCE_MS);
  const request = fetch(path, { method: "POST", headers, body: JSON.stringify(values), signal });
  const answer = await request.catch(() => {
    throw new Error("no answer: check that the program is still running");
  });
  if (answer.ok) return answer.json();
  const isJson = (answer.headers.get("Content-Type") ?? "").includes("json");
  const reason = isJson ? (await answer.json()).error : (await answer.text()).trim();
  throw Object.assign(new Error(reason || answer.statusText), { status: answer.status });
}
