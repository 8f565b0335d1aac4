// Read the ssh config that is the first argument with every version of the package ssh-config that the
// second one lists, as editors do.  Print as JSON, for each version: the Host names in the file, what the
// package computes for each further argument, and the file as it would write it.
const fs = require('fs')

const [file, versions, ...hosts] = process.argv.slice(2)
const text = fs.readFileSync(file, 'utf8')
console.log = () => {} // some versions report what they do
const read = {}
for (const version of versions.split(' ')) {
  const found = require(`ssh-config-${version}`)
  const SSHConfig = found.parse ? found : found.default
  const config = SSHConfig.parse(text)
  const names = config.filter((line) => line.param === 'Host').map((line) => line.value)
  const computed = Object.fromEntries(hosts.map((host) => [host, config.compute(host)]))
  read[version] = { names, computed, text: SSHConfig.stringify(config) }
}
process.stdout.write(JSON.stringify(read))
