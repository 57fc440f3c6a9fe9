export class Fake {
  [name: string]: any;
}
