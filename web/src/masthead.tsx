// The head of every page but a desktop's own: where one is, and who one is.
import { Link } from "wouter";
import type { Estate } from "./estate";
import { Icon, Mark } from "./icons";
import { movesOf, underWay } from "./moving";
import type { Me } from "./words";

const places = [
  { path: "/", text: "Desktops", icon: "screen" },
  { path: "/hypervisors", text: "Hypervisors", icon: "rack" },
  { path: "/moves", text: "Moves", icon: "move" },
  { path: "/matrix", text: "Matrix", icon: "bars" },
  { path: "/recordings", text: "Recordings", icon: "film" },
] as const;

export interface MastheadProps {
  estate: Estate;
  me: Me;
  onSignOut: () => void;
}

export function Masthead({ estate, me, onSignOut, here }: MastheadProps & { here: (typeof places)[number]["path"] }) {
  const moving = me.admin ? movesOf(estate).filter(underWay).length : 0;
  return (
    <header>
      <Link href="/" className="brand" aria-label="Consort: your desktops">
        <Mark /> <span>Consort</span>
      </Link>
      {me.admin && (
        <nav aria-label="Places" className="places">
          {places.map((p) => (
            <Link key={p.path} href={p.path} className="button plain" aria-current={p.path === here ? "page" : undefined}>
              <Icon name={p.icon} /> <span>{p.text}</span>
              {p.path === "/moves" && moving > 0 && (
                <b className="count">
                  {moving}
                  <i className="unseen"> under way</i>
                </b>
              )}
            </Link>
          ))}
        </nav>
      )}
      <nav aria-label="You">
        <Link href="/account" className="button plain">
          <Icon name="person" /> <span>{me.title || me.person || "Administrator"}</span>
        </Link>
        <button type="button" className="plain" onClick={onSignOut}>
          <Icon name="out" /> <span>Sign out</span>
        </button>
      </nav>
    </header>
  );
}
