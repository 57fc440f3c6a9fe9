// From where to where a machine goes, and who has it now.
import { Icon } from "./icons";

interface Props {
  from: string;
  to: string;
  at: string; // the hypervisor that owns the machine now; empty when it does not matter any more
}

/** Route shows both ends. Exactly one owns the machine at any moment. */
export function Route({ from, to, at }: Props) {
  const end = (name: string, word: string) => (
    <span className={name === at ? "end owns" : "end"}>
      <i className="unseen">{word} </i>
      {name}
      {name === at && <small>has it now</small>}
    </span>
  );
  return (
    <p className="route">
      {end(from, "from")}
      <Icon name="right" />
      {end(to, "to")}
    </p>
  );
}
