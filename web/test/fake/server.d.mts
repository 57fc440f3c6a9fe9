/* eslint-disable */
export class Fake {
  [name: string]: any;
}
