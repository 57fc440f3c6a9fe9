import { useEffect, useRef, useState, type FormEvent } from "react";
import { call } from "./call";
import { Icon, Mark } from "./icons";
import { Notice } from "./notice";
import { passkeysWork, signInWithPasskey } from "./passkey";

/** takeCode reads the single-use code out of the address and removes it there. */
export function takeCode(): string {
  const code = new URLSearchParams(location.hash.slice(1)).get("code") ?? "";
  if (code) history.replaceState(null, "", location.pathname + location.search);
  return code;
}

// On this page "sign in again" is what was just tried.
const again = { unauthenticated: "Check what you typed, or open a new sign-in link." };

type Doing = "nothing" | "code" | "password" | "passkey";

export function SignIn({ code, onDone }: { code: string; onDone: (first: boolean) => void }) {
  const [doing, setDoing] = useState<Doing>(code ? "code" : "nothing");
  const [fault, setFault] = useState<unknown>();
  const [withdrawn, setWithdrawn] = useState(false);
  const sent = useRef(false);
  const field = useRef<HTMLInputElement>(null);

  useEffect(() => {
    if (!code || sent.current) return;
    sent.current = true; // a second post would find the code used up
    call("POST", "/v1/sign-in/code", { code }).then(
      () => onDone(true),
      (e: unknown) => {
        setFault(e);
        setDoing("nothing");
      },
    );
  }, [code, onDone]);

  useEffect(() => {
    if (doing === "nothing") field.current?.focus();
  }, [doing]);

  const attempt = async (how: Doing, act: () => Promise<boolean>) => {
    setDoing(how);
    setFault(undefined);
    setWithdrawn(false);
    try {
      if (await act()) return onDone(false);
      setWithdrawn(true);
    } catch (e) {
      setFault(e);
    }
    setDoing("nothing");
  };

  const submit = (e: FormEvent<HTMLFormElement>) => {
    e.preventDefault();
    const form = new FormData(e.currentTarget);
    void attempt("password", async () => {
      await call("POST", "/v1/sign-in/password", { person: form.get("person"), password: form.get("password") });
      return true;
    });
  };

  if (doing === "code") {
    return (
      <main className="centre">
        <Mark />
        <p role="status" className="quiet">
          <span className="spinner" /> Signing you in…
        </p>
      </main>
    );
  }
  const busy = doing !== "nothing";
  return (
    <main className="centre">
      <div className="panel signin">
        <Mark />
        <h1>Sign in to Consort</h1>
        {fault !== undefined && <Notice fault={fault} next={again} />}
        {withdrawn && (
          <p role="status" className="quiet">
            No passkey was used. Try again, or sign in with your password.
          </p>
        )}
        <form onSubmit={submit}>
          <label>
            Your name
            <input ref={field} name="person" required autoComplete="username webauthn" autoCapitalize="none" spellCheck={false} />
          </label>
          <label>
            Password
            <input name="password" type="password" required autoComplete="current-password" />
          </label>
          <button type="submit" className="primary" disabled={busy}>
            {doing === "password" ? <span className="spinner" /> : null}Sign in
          </button>
        </form>
        {passkeysWork() && (
          <>
            <p className="or">or</p>
            <button type="button" disabled={busy} onClick={() => void attempt("passkey", () => signInWithPasskey())}>
              <Icon name="key" /> Use a passkey
            </button>
          </>
        )}
        <p className="hint">First time here? Open the link you were given; it works once. Your administrator can make a new one.</p>
      </div>
    </main>
  );
}
