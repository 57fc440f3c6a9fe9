// Ways of signing in next time: offered once after a one-time code, and kept under /account.
import { useState, type FormEvent } from "react";
import { Link, useLocation } from "wouter";
import { call } from "./call";
import { Icon, Mark } from "./icons";
import { Notice } from "./notice";
import { addPasskey, passkeysWork } from "./passkey";
import type { Me } from "./words";

const shortest = 10;

export function Welcome({ me, first, onDone }: { me: Me; first: boolean; onDone?: () => void }) {
  const [fault, setFault] = useState<unknown>();
  const [said, setSaid] = useState("");
  const [busy, setBusy] = useState(false);
  const [, navigate] = useLocation();
  const done = () => (onDone ? onDone() : navigate("/"));

  const attempt = async (act: () => Promise<string>) => {
    setBusy(true);
    setFault(undefined);
    setSaid("");
    try {
      setSaid(await act());
    } catch (e) {
      setFault(e);
    }
    setBusy(false);
  };

  const setPassword = (e: FormEvent<HTMLFormElement>) => {
    e.preventDefault();
    const form = e.currentTarget;
    void attempt(async () => {
      const given = new FormData(form);
      await call("POST", "/v1/me/password", { password: given.get("password"), current: given.get("current") ?? "" });
      form.reset();
      return "Your password is set.";
    });
  };

  return (
    <main className="centre">
      <div className="panel signin">
        <Mark />
        <h1>{first ? `Welcome, ${me.title || me.person || "administrator"}` : "How you sign in"}</h1>
        <p className="quiet">
          {first ? "The link you used works only once. Choose how you sign in next time." : "Add a passkey to this device, or set a new password."}
        </p>
        {fault !== undefined && <Notice fault={fault} />}
        <p role="status">{said && <span className="said"><Icon name="check" /> {said}</span>}</p>
        {passkeysWork() && (
          <>
            <button
              type="button"
              className={said ? "" : "primary"}
              disabled={busy}
              onClick={() => void attempt(async () => ((await addPasskey()) ? "This device can sign you in." : "No passkey was made."))}
            >
              <Icon name="key" /> Set up a passkey
            </button>
            <p className="or">or</p>
          </>
        )}
        <form onSubmit={setPassword}>
          <input type="text" name="person" autoComplete="username" value={me.person ?? ""} readOnly hidden />
          {!first && (
            <label>
              Current password, if you have one
              <input name="current" type="password" autoComplete="current-password" />
            </label>
          )}
          <label>
            New password
            <input name="password" type="password" required minLength={shortest} autoComplete="new-password" aria-describedby="rule" />
          </label>
          <p id="rule" className="hint">
            At least {shortest} characters. A few words are easier to remember than signs.
          </p>
          <button type="submit" disabled={busy}>
            Set the password
          </button>
        </form>
        {first ? (
          <button type="button" className={said ? "primary" : "plain"} onClick={done}>
            {said ? "Go to your desktops" : "Later"}
          </button>
        ) : (
          <Link href="/" className="button plain">
            Back to your desktops
          </Link>
        )}
      </div>
    </main>
  );
}
