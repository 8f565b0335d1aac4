// Read the ssh config that is the argument with the package that editors use; print as JSON the
// Host names in it, what it computes for each further argument, and the file as it would write it.
const fs = require('fs')
const SSHConfig = require('ssh-config')

const [file, ...hosts] = process.argv.slice(2)
const config = SSHConfig.parse(fs.readFileSync(file, 'utf8'))
const names = config.filter((line) => line.param === 'Host').map((line) => line.value)
const computed = Object.fromEntries(hosts.map((host) => [host, config.compute(host)]))
console.log(JSON.stringify({ names, computed, text: SSHConfig.stringify(config) }))
