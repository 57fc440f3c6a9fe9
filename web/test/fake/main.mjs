// Serves the built pages against the fake plane, to look at them by hand.
import { onTheWay, racks, trials } from "./racks.mjs";
import { Fake } from "./server.mjs";

const fake = new Fake();
fake.pace = 1500;
fake.admin = true;
for (const o of [...racks(), ...onTheWay(), ...trials()]) fake.put(o);
const url = await fake.listen(Number(process.env.PORT ?? 7481));
console.log(`${url}/#code=${fake.code}   (or ana, "${fake.password}")`);
